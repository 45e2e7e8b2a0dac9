"""A page in the browser to find points and look at their series; needs the extra `explore`."""
