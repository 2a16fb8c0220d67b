"""Where memories are kept: each vector database behind one protocol."""
