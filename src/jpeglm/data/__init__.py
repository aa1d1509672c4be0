"""From pictures on a disk to batches of token ids.

    sources/        pictures in folders, tars, Parquet, Hugging Face data ──▶ units of work
    settings        what decides the content of the shards; splits, crops: what it says of an item
    encode, pool    a unit ▸ crops ▸ canonical bytes ▸ one shard; the processes that do it
    prepare         all units, on all cores, killable
    shards, token_shards, open      a prepared folder: its files, and one interface to it
    token_set, token_index, mapped  sequences of ids, in memory or where they lie
    loader, packing, plan           sequences ▸ batches for the training loop
    arrays          the same pictures as pixels

Nothing is imported here: a host that trains on token shards needs neither pyarrow nor numba.
"""
