"""The finished site of a web server, as systemd/README.md explains it."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

Server = Literal["nginx", "caddy"]

_NGINX = """\
server {
    listen PORT ssl;
    server_name HOST;
    ssl_certificate /etc/letsencrypt/live/HOST/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/HOST/privkey.pem;

    location = PATH {
        if ($request_method != POST) { return 405; }
        client_max_body_size SIZE;
        client_body_buffer_size 64k;
        client_body_timeout 10s;
        proxy_request_buffering on;
        proxy_pass http://UPSTREAM;
        proxy_http_version 1.1;
        proxy_set_header Connection close;
        proxy_next_upstream off;
        proxy_connect_timeout 5s;
        proxy_read_timeout 30s;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $remote_addr;
    }

    location / { return 404; }
}
"""
_CADDY = """\
HOST {
	@delivery {
		method POST
		path PATH
	}
	handle @delivery {
		request_body {
			max_size SIZE
		}
		reverse_proxy UPSTREAM {
			transport http {
				dial_timeout 5s
				response_header_timeout 30s
				keepalive off
			}
		}
	}
	handle {
		respond 404
	}
}
"""
_HTTPS = 443
_MIB = 1024 * 1024


def site(server: Server, public_url: str, upstream: str, max_body_bytes: int) -> str:
    """Return the site that passes the deliveries of `public_url` on to `upstream`.

    `upstream`: `host:port` or `unix:/path`, as in `webhook.listen`.
    """
    parts = urlsplit(public_url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port or _HTTPS
    whole = max_body_bytes % _MIB == 0
    if server == "nginx":
        size = f"{max_body_bytes // _MIB}m" if whole else str(max_body_bytes)
        values = {"HOST": host, "PORT": str(port), "SIZE": size}
        template = _NGINX
    else:
        size = f"{max_body_bytes // _MIB}MiB" if whole else str(max_body_bytes)
        values = {"HOST": host if port == _HTTPS else f"{host}:{port}", "SIZE": size}
        upstream = (
            upstream.replace("unix:", "unix/", 1) if upstream.startswith("unix:") else upstream
        )
        template = _CADDY
    values |= {"PATH": parts.path, "UPSTREAM": upstream}
    return re.sub(r"\b(?:HOST|PORT|PATH|SIZE|UPSTREAM)\b", lambda name: values[name[0]], template)


def next_step(server: Server, public_url: str) -> str:
    """Return where the site belongs and how the server takes it."""
    if server == "nginx":
        host = urlsplit(public_url).hostname
        return (
            f"write it to /etc/nginx/sites-enabled/syncd, get a certificate for {host} (certbot), "
            "then: nginx -t && systemctl reload nginx"
        )
    return "add it to /etc/caddy/Caddyfile, then: systemctl reload caddy"
