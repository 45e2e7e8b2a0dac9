"""Whether a host name can only mean this machine.

Put here: that question alone. Keep out: what follows from it (`control/host_check.py`,
`orchestration/exposed_secrets.py`).
"""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host name, without port and brackets, can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
