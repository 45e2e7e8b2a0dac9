"""An ACE API of one's own, on loopback. It shares no code with `ace`: a fake that shares the parser hides its bugs."""
