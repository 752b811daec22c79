from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

DOCUMENTS = Path(__file__).parents[1] / "docs"


def run_examples(document: str, replaced: Mapping[str, str | Path]) -> int:
    """Run the Python examples of a document, in order, as one program. Returns their number."""
    path = DOCUMENTS / document
    examples = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for example in examples:
            source = example
            for written, meant in replaced.items():
                source = source.replace(written, str(meant))
            code = compile(source, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)  # noqa: S307  # our own documentation
            if inspect.isawaitable(result):
                runner.run(_finish(result))
    return len(examples)


async def _finish(example: Awaitable[Any]) -> None:
    async with asyncio.timeout(60):
        await example
