"""Bad and awkward inputs, all made by code, and what has to become of each."""
