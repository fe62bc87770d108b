"""Models as a person names them, and what answers with them: vLLM, transformers, a server."""
