"""An ACE API on loopback, for tests and demonstrations.

It shares no code with `ace`: a simulator that shared the parser would hide the parser's bugs.
"""
