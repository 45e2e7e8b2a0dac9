"""Recognition of host names and addresses that can only mean this machine, such as `127.0.0.1`.

Put here: the test of a host name. Keep out: what depends on it (`control/host_check.py`,
`orchestration/exposed_secrets.py`).
"""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host name, without port and brackets, can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
