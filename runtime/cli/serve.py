"""``sdengine serve``: a server that generates for many at once."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ...engines.errors import SdengineError, UsageError
from ...engines.install_hint import install_hint
from .opening_options import with_opening_options

__all__ = ["serve"]


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options in a file as defaults: flags and environment variables go before them."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_options_in(path, context)}
    return path


def _options_in(path: Path, context: typer.Context) -> dict[str, Any]:
    import yaml

    from ...engines.errors import nearest

    try:
        options = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(options, dict):
        raise UsageError(f"--config {path} must hold options by name, like `port: 8000`")
    known = {parameter.name: parameter for parameter in context.command.params if parameter.name != "config"}
    read: dict[str, Any] = {}
    for written, value in options.items():
        name = str(written).replace("-", "_")
        if name not in known:
            raise UsageError(f"--config {path}: unknown option {name!r}{nearest(name, map(str, known))}")
        if name in read:
            raise UsageError(f"--config {path}: {name.replace('_', '-')} is there twice")
        several = known[name].multiple or known[name].nargs == -1
        read[name] = [value] if several and isinstance(value, str | int | float) else value
    return read


def _keys(given: list[str] | None) -> list[str]:
    """Return the API keys; a variable that is there but empty was meant to hold one."""
    variable = _env("API_KEY")
    if not given and variable in os.environ:
        raise UsageError(f"{variable} is set, but holds no key: unset it to let everybody in")
    return given or []


def _env(name: str) -> str:
    return f"SDENGINE_{name}"


@with_opening_options
def serve(
    bundles: Annotated[
        list[Path],
        typer.Argument(help="Bundles that `sdengine export` wrote.", show_default=False, metavar="BUNDLE..."),
    ],
    host: Annotated[str, typer.Option(envvar=_env("HOST"), help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar=_env("PORT"), min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar=_env("API_KEY"), help="Requests to /v1 must carry it as bearer token; repeatable."),
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(
            envvar=_env("SERVED_MODEL_NAME"), help="What requests call the bundles: one for each, or several for one."
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(envvar=_env("MAX_NUM_SEQS"), min=1, help="Images in one launch. Default: as the bundle takes."),
    ] = None,
    max_num_queued_reqs: Annotated[
        int, typer.Option(envvar=_env("MAX_NUM_QUEUED_REQS"), min=1, help="Requests that may wait; others get 429.")
    ] = 256,
    lora_folder: Annotated[
        Path | None,
        typer.Option(envvar=_env("LORA_FOLDER"), help="Folder of LoRAs that requests and prompts may name."),
    ] = None,
    safety_checker: Annotated[
        bool,
        typer.Option(
            "--safety-checker/--no-safety-checker",
            envvar=_env("SAFETY_CHECKER"),
            help="Look at images with the safety checker of bundles that hold one.",
        ),
    ] = True,
    policy: Annotated[
        str, typer.Option(envvar=_env("POLICY"), help="step, fcfs or batch-at-the-door; the latter two to compare.")
    ] = "step",
    warm_up: Annotated[
        list[str] | None,
        typer.Option(
            envvar=_env("WARM_UP"),
            metavar="WxH",
            help="Sizes generated before it is ready. Default: the bundle's.",
        ),
    ] = None,
    max_n: Annotated[int, typer.Option(envvar=_env("MAX_N"), min=1, help="Images of one request.")] = 10,
    max_steps: Annotated[int, typer.Option(envvar=_env("MAX_STEPS"), min=1, help="Steps of one request.")] = 200,
    max_image_pixels: Annotated[
        int, typer.Option(envvar=_env("MAX_IMAGE_PIXELS"), min=1, help="Pixels of an image that is sent.")
    ] = 2**24,
    max_body_mb: Annotated[int, typer.Option(envvar=_env("MAX_BODY_MB"), min=1, help="MiB of a request.")] = 64,
    body_timeout: Annotated[
        float, typer.Option(envvar=_env("BODY_TIMEOUT"), min=0.1, help="Seconds without a byte of a body.")
    ] = 30.0,
    request_timeout: Annotated[
        float, typer.Option(envvar=_env("REQUEST_TIMEOUT"), min=0.1, help="Seconds of one request, waiting included.")
    ] = 600.0,
    sse_keep_alive_interval: Annotated[
        float, typer.Option(envvar=_env("SSE_KEEP_ALIVE_INTERVAL"), min=0, help="Seconds between heartbeats; 0: none.")
    ] = 10.0,
    shutdown_timeout: Annotated[
        float, typer.Option(envvar=_env("SHUTDOWN_TIMEOUT"), min=0, help="Seconds for accepted requests to end.")
    ] = 25.0,
    allowed_origins: Annotated[
        list[str] | None,
        typer.Option(envvar=_env("ALLOWED_ORIGINS"), help="Pages elsewhere that may use the server; repeatable."),
    ] = None,
    root_path: Annotated[str, typer.Option(envvar=_env("ROOT_PATH"), help="Path that a proxy strips.")] = "",
    ssl_keyfile: Annotated[Path | None, typer.Option(envvar=_env("SSL_KEYFILE"))] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(envvar=_env("SSL_CERTFILE"))] = None,
    log_level: Annotated[str, typer.Option(envvar=_env("LOG_LEVEL"), help="debug, info, warning or error.")] = "info",
    ray: Annotated[
        bool, typer.Option("--ray", envvar=_env("RAY"), help="Serve on Ray Serve, with several replicas.")
    ] = False,
    replicas: Annotated[
        str, typer.Option(envvar=_env("REPLICAS"), help="With --ray: a number, a range like 2..8, or auto.")
    ] = "1",
    cpus_per_replica: Annotated[
        float, typer.Option(envvar=_env("CPUS_PER_REPLICA"), min=0, help="With --ray: cores of each replica.")
    ] = 1.0,
    gpus_per_replica: Annotated[
        float,
        typer.Option(envvar=_env("GPUS_PER_REPLICA"), min=0, help="With --ray: GPUs of each replica, or a share."),
    ] = 0.0,
    ray_address: Annotated[
        str | None, typer.Option(envvar=_env("RAY_ADDRESS"), help="With --ray: of a cluster that runs; auto finds it.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(callback=_read_config, is_eager=True, help="YAML file of these options; flags go before it."),
    ] = None,
    opening: Any = None,
) -> None:
    """Serve bundles over HTTP, with OpenAI's images API."""
    try:
        from ..serve.json_logs import set_up_logs
        from ..serve.server import check_certificate
        from ..serve.server import serve as run
    except ModuleNotFoundError as error:
        raise SdengineError(f"{error.name} is not installed; {install_hint('serve')}") from error
    from ..serve.limits import Limits
    from ..serve.serve_settings import ServeSettings, parse_size

    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise UsageError(f"--log-level {log_level!r} is none of debug, info, warning, error")
    settings = ServeSettings(
        bundles=tuple(map(str, bundles)),
        served_model_name=tuple(served_model_name or ()),
        opening={**opening, "lora_folder": lora_folder, "safety_checker": safety_checker},
        policy=policy,
        max_num_seqs=max_num_seqs,
        max_num_queued_reqs=max_num_queued_reqs,
        limits=Limits(
            n=max_n,
            steps=max_steps,
            image_pixels=max_image_pixels,
            timeout=request_timeout,
            body=max_body_mb << 20,
            body_timeout=body_timeout,
        ),
        api_keys=tuple(_keys(api_key)),
        allowed_origins=tuple(allowed_origins or ()),
        warm_up=None if warm_up is None else tuple(map(parse_size, warm_up)),
        sse_keep_alive_interval=sse_keep_alive_interval,
        shutdown_timeout=shutdown_timeout,
    )
    if root_path and not re.fullmatch(r"(/[^/?#\s]+)+", root_path):
        raise UsageError(f"--root-path {root_path!r} must be like /images: begin with a slash, and end without")
    set_up_logs(log_level)
    listening: dict[str, Any] = {"host": host, "port": port, "root_path": root_path}
    listening |= {"ssl_keyfile": ssl_keyfile, "ssl_certfile": ssl_certfile}
    if not ray:
        if (replicas, cpus_per_replica, gpus_per_replica, ray_address) != ("1", 1.0, 0.0, None):
            raise UsageError("--replicas, --cpus-per-replica, --gpus-per-replica and --ray-address need --ray")
        run(settings, **listening)
        return
    try:
        from ..serve.cluster.deployment import Share, replicas_from
        from ..serve.cluster.serve_on_ray import serve_on_ray
    except ModuleNotFoundError as error:
        raise SdengineError(f"{error.name} is not installed; {install_hint('ray')}") from error
    least, most = replicas_from(replicas)
    share = Share(replicas=least, most=most, cpus=cpus_per_replica, gpus=gpus_per_replica)
    check_certificate(ssl_certfile, ssl_keyfile)
    serve_on_ray(settings, share, address=ray_address, **listening)
