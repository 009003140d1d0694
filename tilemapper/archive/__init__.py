"""Archives: job files, scene discovery, the ledger, and the run over thousands of scenes."""
