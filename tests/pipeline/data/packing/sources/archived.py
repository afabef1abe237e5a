"""Archives as they are published, and what a source finds in them."""

import io
import tarfile


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def samples(source, split):
    """key -> (class name, payload), the whole of what a split holds."""
    rows = source.splits[split]
    return {
        key.decode(): (source.classes[label], source.read(split, row))
        for row, (key, label) in enumerate(zip(rows.key.tolist(), rows.label.tolist(), strict=True))
    }
