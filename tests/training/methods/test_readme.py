import re
from pathlib import Path

import torch

from training import methods
from training.methods import METHODS
from training.parts.schedules import Progress

README = Path(methods.__file__).parent / "README.md"


def test_every_method_has_its_line():
    files = set(re.findall(r"^\| `(\w+)\.py`", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert files == set(METHODS)


def test_the_ninth_method_is_short_and_trains(model, batch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 40
    names = {}
    exec(compile(code, "mean_teacher.py", "exec"), names)
    method = names["MeanTeacher"](model)
    with torch.no_grad():
        for parameter in method.teacher.model.parameters():
            parameter.mul_(-1)
    early, late = (method.step(batch, Progress(step, 100)) for step in (0, 50))
    assert late["loss_clip_mse"] > 0 and late["loss"] > early["loss"]
    late["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    method.after_step(Progress(0, 100))
    assert torch.equal(method.teacher.model.clip.weight, model.clip.weight)


def test_the_loop_names_no_method():
    script = (README.parents[1] / "train_semi.py").read_text(encoding="utf-8")
    named = {name for name in METHODS if re.search(rf"[\"']{name}[\"']", script)}
    classes = {kind.__name__ for kind in METHODS.values() if re.search(rf"\b{kind.__name__}\b", script)}
    assert "METHODS[" in script and not named | classes


def test_no_two_methods_share_a_block():
    blocks = {}
    for name in METHODS:
        lines = [line.strip() for line in (README.parent / f"{name}.py").read_text(encoding="utf-8").splitlines()]
        code = [line for line in lines if line and not line.startswith(("from ", "import "))]
        for i in range(len(code) - 5):
            blocks.setdefault(tuple(code[i : i + 6]), set()).add(name)
    assert [names for names in blocks.values() if len(names) > 1] == []
