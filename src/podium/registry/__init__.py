"""Rank 4: content-addressed bytes and manifests, and where they come from. Rows are the store's.

    blobs.py           bytes under their sha256: a local folder (`local_folder.py`) or a bucket (`bucket.py`)
    intake.py          what was pushed: flavor, requirements, Python, signature (`formats/`: one file per flavor)
    push.py            the manifest, and the digest by which the same push is recognised
    checkout.py        a version's files as a read-only folder for a replica
    verify.py          are the stored bytes still what was pushed
    garbage.py         blobs that no manifest refers to
    diff.py            what differs between two manifests
    folder.py          a folder of the server's into the blob store
    mlflow_source.py   models of an MLflow registry or run; the only module that imports mlflow

Nothing in here unpickles or imports anything of a model: whatever is pushed is read as bytes.
"""
