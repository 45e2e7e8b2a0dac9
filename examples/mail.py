"""Alerts by e-mail: a webhook on loopback that mails on what `BACKFILL_ALERT_URL` is told.

    MAIL_HOST=mail.example.org:587 MAIL_FROM=backfill@example.org MAIL_TO=operator@example.org python examples/mail.py
    BACKFILL_ALERT_URL=http://127.0.0.1:8025/ backfill up

With MAIL_USER and MAIL_PASSWORD it logs in, and then asks for TLS first. What the mail server does not take is answered
with 502, so that it is told as any other alert that could not be sent.
"""

import json
import os
import smtplib
import ssl
import sys
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer


def mail(alert: dict[str, str]) -> None:
    """Send one alert: its kind and site are the subject, its text and the other facts the body."""
    message = EmailMessage()
    message["From"], message["To"] = os.environ["MAIL_FROM"], os.environ["MAIL_TO"]
    message["Subject"] = " ".join(["backfill:", alert["kind"], *alert.get("site", "").split()])
    facts = [f"{name}: {value}" for name, value in alert.items() if name not in ("text", "kind")]
    message.set_content("\n".join([alert["text"], "", *facts]))
    host, _, port = os.environ["MAIL_HOST"].partition(":")
    with smtplib.SMTP(host, int(port or 587), timeout=8) as server:
        if os.environ.get("MAIL_PASSWORD"):
            server.starttls(context=ssl.create_default_context())
            server.login(os.environ["MAIL_USER"], os.environ["MAIL_PASSWORD"])
        server.send_message(message)


class Hook(BaseHTTPRequestHandler):
    """Takes what the pipeline posts."""

    def do_POST(self) -> None:
        """Mail it; 204 when the mail server took it."""
        try:
            mail(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = 204
        except (OSError, smtplib.SMTPException) as error:
            self.log_error("not mailed: %s", error)
            status = 502
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    listening = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8025), Hook)
    sys.stderr.write(f"alerts to http://127.0.0.1:{listening.server_port}/ are mailed to {os.environ['MAIL_TO']}\n")
    listening.serve_forever()
