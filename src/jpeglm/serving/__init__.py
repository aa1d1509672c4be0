"""Models behind HTTP, in the shape that clients of OpenAI's image API speak (extra `serve`).

    app        routes; who may come in, how much they may send
    schemas    what a request may say, what an answer holds
    service    the models by name, and the way of a request
    drawing    a request becomes a prompt, tokens become files
    batcher    the one thread that steps a model's session, for all requests at once
    page       the studio's static files
    server     uvicorn, and how it stops

Nothing here draws: pictures are those of `generation`, to the byte.
"""
