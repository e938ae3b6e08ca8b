"""One file a step: typed inputs and outputs, and a few lines that call `imago`."""
