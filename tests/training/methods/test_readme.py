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
