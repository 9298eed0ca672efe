"""`pycni trace`: facts are read (`reading`), walked step by step (`walk` and its parts), and shown (`command`)."""
