"""A node's life on a recording disk, and a node started on what a power cut would have left of that disk."""

from checker import Book, Load, audit, compacted
from disks import Image, Recorder, Recording, mount_ext4

IMAGE_BYTES = 64 << 20
JOURNAL = ["-J", "size=4", "-N", "256"]
WRITERS = 3


class Recorded:
    """A recording disk, a node's life on it, and the books of that."""

    def __init__(self, disks, start_node, scratch):
        self.disks, self.start_node, self.scratch = disks, start_node, scratch
        self.before, image = scratch / "before", scratch / "image"
        disks(Image(self.before, IMAGE_BYTES, *JOURNAL))
        image.write_bytes(self.before.read_bytes())
        self.recorder = disks(Recorder(image, scratch / "log", scratch / "recorder"))
        self.mount = disks(mount_ext4(self.recorder.disk, scratch / "disk", direct_io=True))
        self.books = [Book(f"w{i}", self.recorder.position) for i in range(WRITERS)]

    def record(self, phases, rng, *flags, sizes=None):
        """Runs the phases; returns how many segments were compacted meanwhile."""
        segments = 0
        for threads, count, end in phases:
            node = self.start_node(self.mount.path / "data", *flags, threads=threads)
            assert audit(node.port, self.books) == []
            load = Load(self.books, node.port, rng.random(), keys=60, depths=(1, 2, 4, 8), sizes=sizes)
            load.start().wait_for(count)
            segments += compacted(node.port)
            if end == "kill":
                node.kill()
            else:
                node.stop()
            assert load.join() == []
        return segments

    def recording(self):
        return self.disks(Recording(self.before, self.recorder.log))


def check_cut(recorded, recording, cut, rng, threads, again=False, lost=(), position=None):
    """Starts a node on the disk of a cut, with `again` twice; returns complaints.

    lost      writes that the disk forgets even if it was told to flush them
    position  the one that the books are asked for, if not that of the cut
    """
    image = recorded.scratch / "cut"
    recording.build(cut, rng, image, lost)
    mount = recorded.disks(mount_ext4(image, recorded.scratch / "cut-disk"))
    if position is None:
        position = recording.position(cut)
    complaints = []
    for _ in range(1 + again):
        node = recorded.start_node(mount.path / "data", threads=threads, wait=False)
        try:
            node.wait_until_serving()
            complaints += audit(node.port, recorded.books, cut=position, settle=False)
        except AssertionError as refused:
            complaints.append(str(refused))
        node.kill()
    mount.close()
    image.unlink()
    return complaints
