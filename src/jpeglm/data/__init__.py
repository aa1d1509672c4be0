"""From pictures on a disk to batches of token ids, in four steps of one file each.

    sources.py   pictures in folders, tars, Parquet, Hugging Face data  ->  units of work
    prepare.py   units -> crops -> canonical bytes -> Parquet shards, on all cores
    shards.py    the shards on disk: write, read, `open_data`
    loader.py    shards -> token ids in memory -> packing.py -> batches for the training loop

Nothing is imported here: a host that trains on token shards needs neither pyarrow nor numba.
"""
