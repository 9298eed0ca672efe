"""`pycni trace`: facts are read (`reading`), walked step by step (`walk`, `tunnel`), and shown (`command`)."""
