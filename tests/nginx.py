"""A real nginx in front of something else."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.parts import missing
from tests.processes import free_port, start


@contextmanager
def nginx(folder: Path, upstream: str | Sequence[str], site: str, http2_port: int = 0) -> Iterator[str]:
    """The address of an nginx that passes requests on to the upstream, or to several in turn.

    On another port by HTTP/2 as well, over TLS.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin") or missing(
        "nginx", "apt install nginx"
    )
    port, folder = free_port(), folder / "nginx"
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    upstreams = [upstream] if isinstance(upstream, str) else upstream
    servers = " ".join(f"server {each.removeprefix('http://')};" for each in upstreams)
    pool = f"upstream localhost {{ {servers} keepalive 2; }}"
    listen = f"listen 127.0.0.1:{port};"
    if http2_port:
        listen += f" listen 127.0.0.1:{http2_port} ssl http2; ssl_certificate c.pem; ssl_certificate_key k.pem;"
        make = "req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
        openssl = shutil.which("openssl") or missing("openssl", "apt install openssl")
        subprocess.run([openssl, *make.split()], cwd=folder, check=True, capture_output=True)
    location = f"location / {{ proxy_pass http://localhost; {site} }}"
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder / 'pid'}; error_log stderr; worker_processes 1; events {{}} "
        f"http {{ access_log off; {temporary} {pool} server {{ {listen} {location} }} }}"
    )
    url = f"http://127.0.0.1:{port}"
    with start([program, "-p", str(folder), "-c", str(config), "-e", "stderr"], {}, f"{url}/health"):
        yield url
