"""Evaluation forward of both students and their fusion, against the released code.

python tests/benchmarks/evaluate.py
"""

import torch

from tests.benchmarks.measure import (
    DTYPES,
    Calibrators,
    build_model,
    gflop,
    in_turn,
    matmul_gflops,
    parser,
    ratio,
    report,
)

RELEASED_IN_C = {256: {1: 2.34, 2: 2.85}, 512: {1: 13.8, 2: 14.7}}  # side in px -> threads -> both students, 6 classes


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="of the image in px")
    arguments = arguments.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    calibrators = Calibrators(arguments.size, device)
    model = build_model(arguments.size, arguments.num_classes).to(device)
    rows = []
    for dtype in arguments.dtype:
        ceiling = matmul_gflops(DTYPES[dtype], device)
        for side in arguments.sides:
            image = torch.randn(1, 3, side, side, device=device)

            @torch.no_grad()
            def evaluate(image: torch.Tensor = image, dtype: str = dtype) -> None:
                with torch.autocast(image.device.type, DTYPES[dtype], enabled=dtype != "fp32"):
                    model(image)

            times = in_turn({"C": calibrators.C, "evaluate": evaluate}, arguments.repeats, device)
            ours, work = ratio(times, "evaluate", "C"), gflop(evaluate)
            released = RELEASED_IN_C.get(side, {}).get(arguments.threads) if device == "cpu" else None
            fastest = min(times["evaluate"])
            rows.append(
                {
                    "work": f"forward {side} px, {dtype}",
                    "in C": ours,
                    "released in C": released,
                    "ratio": released and released / ours,
                    "seconds": fastest,
                    "GFLOP": work,
                    "GFLOP/s": work / fastest,
                    "ceiling": ceiling,
                    "share": work / fastest / ceiling,
                }
            )
    report("evaluate", arguments, rows)
    return rows


if __name__ == "__main__":
    main()
