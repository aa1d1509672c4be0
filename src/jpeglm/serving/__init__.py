"""Models behind HTTP, in the shape that clients of OpenAI's image API speak (extra `serve`).

    app        routes; who may come in, how much they may send
    schemas    what a request may say, what an answer holds
    service    the models by name; a request becomes prompts, tokens become files
    batcher    the one thread that steps a model's session, for all requests at once
    server     uvicorn, and how it stops

Nothing here draws: pictures are those of `generation`, to the byte.
"""
