"""Serve an exported engine over HTTP: requests that come together go through the model together; no torch is imported.

    mvlib export tf_efficientnet_lite0.pip_in1k --output lite0.ov
    python examples/serve.py lite0.ov --port 8000
    curl --data-binary @photo.jpg 'localhost:8000/predict?topk=3'       # {"predictions": [{"index": ..., ...}]}
400: not a picture; 408: too slow; 413: too many bytes; 503: too many at once. GET /health says what is served.
"""

import argparse
import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, responses
from PIL import Image
from starlette.requests import ClientDisconnect

from mvlib import BadImageError, MvlibError
from mvlib.inference import Session, Settings, classify, open_session


def create_app(session: Session, max_mib: float = 8, at_once: int = 64, seconds: float = 30) -> FastAPI:
    """What answers by a classifier: pictures of `max_mib` MiB, sent within `seconds`, `at_once` of them, at most."""
    compute, limit, counts = classify(session, topk=100), asyncio.Semaphore(at_once), Counter(pictures=0, batches=0)
    waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()

    async def lane() -> None:
        """Take all that waits, a batch at most, through the model; what comes meanwhile makes the next batch."""
        while True:
            batch = [await waiting.get()]
            batch += [waiting.get_nowait() for _ in range(min(session.batch_size - 1, waiting.qsize()))]
            answers = asyncio.create_task(asyncio.to_thread(compute, np.stack([image for image, _ in batch])))
            for number, (_, future) in enumerate(batch):
                future.done() or future.set_result((answers, number))  # who asked may have gone
            await asyncio.wait([answers])
            counts.update(pictures=len(batch), batches=1)
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        yield {"lanes": [asyncio.create_task(lane()) for _ in range(session.lanes)]}  # they end with the loop
    app = FastAPI(title=f"mvlib: {session.name}", lifespan=lifespan)
    for kind, status in ((BadImageError, 400), (TimeoutError, 408), (ClientDisconnect, 400)):  # who left reads nothing
        app.add_exception_handler(kind, lambda request, error, status=status: responses.JSONResponse(
            {"detail": str(error).removeprefix("<bytes>: ") or f"not sent within {seconds:g} seconds"}, status))
    app.get("/health")(lambda: {"status": "ok", "model": session.name, **counts})

    @app.post("/predict")
    async def predict(request: Request, topk: Annotated[int, Query(ge=1, le=100)] = 5) -> dict[str, Any]:
        body = bytearray()
        with anyio.fail_after(seconds):  # a slow sender keeps nobody waiting
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_mib * 2**20:  # before all of it is here
                    raise HTTPException(413, f"the picture has more than {max_mib:g} MiB")
        if limit.locked():
            raise HTTPException(503, f"{at_once} requests are being answered", {"Retry-After": "1"})
        async with limit:
            image = await asyncio.to_thread(session.read, bytes(body))
            waiting.put_nowait((image, future := asyncio.get_running_loop().create_future()))
            answers, number = await future
            return {"predictions": [{"index": index, "class": name, "probability": round(value, 6)}
                                    for index, name, value in (await asyncio.shield(answers))[number][:topk]]}
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="folder of an export (or a model's name, which imports torch)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = vars(parser.parse_args())
    Image.MAX_IMAGE_PIXELS = 50_000_000  # a small file may unfold to gigabytes
    try:
        uvicorn.run(create_app(open_session(Settings(args.pop("export")))), limit_concurrency=256, **args)
    except MvlibError as error:
        parser.error(str(error))
