# A client of NBD by libnbd, which the tests of package peers drive. Its first
# argument says what it does, the second is the URI of an export.
import hashlib, os, random, select, sys, nbd


def say(line):
    os.write(1, (line + "\n").encode())


def serve(uri):
    """Does what each line of the input says, and answers with ok or what was read."""
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    say("size %d" % h.get_size())
    for line in sys.stdin:
        what, off, n, fill = line.split()
        off, n, fill = int(off), int(n), int(fill)
        answer = "ok"
        if what == "write":
            h.pwrite(bytes([fill]) * n, off)
        elif what == "fua":
            h.pwrite(bytes([fill]) * n, off, nbd.CMD_FLAG_FUA)
        elif what == "zero":
            h.zero(n, off)
        elif what == "keep":
            h.zero(n, off, nbd.CMD_FLAG_NO_HOLE)
        elif what == "trim":
            h.trim(n, off)
        elif what == "flush":
            h.flush()
        elif what == "read":
            answer = hashlib.sha1(h.pread(n, off)).hexdigest()
        elif what == "holes":
            # What is said to be zeros must be.
            extents, at = [], off
            h.block_status(n, off, lambda context, offset, entries, err: extents.extend(entries))
            for length, flags in zip(extents[::2], extents[1::2]):
                length = min(length, off + n - at)
                if flags & 2 and any(h.pread(length, at)):
                    answer = "data in a hole"
                at += length
            if at <= off:
                answer = "no extents"
        else:
            raise ValueError(line)
        say(answer)
    h.shutdown()


def ended(number, err):
    err = getattr(err, "value", err)
    say("E %d %d" % (number, err) if err else "D %d" % number)


def storm(uri, connections, seed):
    """Writes and flushes over several connections until the server is gone, and
    says when each request was sent (W, Z and F) and answered (D, E is an error). No two writes
    of the same bytes are under way at once."""
    rng = random.Random(seed)
    handles = []
    for _ in range(connections):
        h = nbd.NBD()
        h.connect_uri(uri)
        assert connections == 1 or h.can_multi_conn()
        handles.append(h)
    sectors = handles[0].get_size() // 512
    busy, flying, flushing, number = set(), set(), 0, int.from_bytes(os.urandom(3), "big")
    poll = select.poll()
    by_fd = {h.aio_get_fd(): h for h in handles}
    for fd in by_fd:
        poll.register(fd, 0)
    try:
        while True:
            while len(flying) < 16:
                number += 1
                h = rng.choice(handles)
                if rng.randrange(24) == 0 and flushing < 2:
                    flushing += 1
                    flying.add(number)
                    def done(err, number=number):
                        nonlocal flushing
                        flushing -= 1
                        flying.discard(number)
                        ended(number, err)
                        return 1
                    say("F %d" % number)
                    h.aio_flush(completion=done)
                    continue
                count = rng.choice([1, 1, 3, 8, 8, 8, 16, 100])
                first = rng.randrange(sectors - count)
                if rng.randrange(2):
                    first &= ~7
                mine = range(first, first + count)
                if not busy.isdisjoint(mine):
                    continue
                busy.update(mine)
                flying.add(number)
                def done(err, number=number, mine=mine):
                    busy.difference_update(mine)
                    flying.discard(number)
                    ended(number, err)
                    return 1
                if rng.randrange(8) == 0:
                    say("Z %d %d %d" % (number, first, count))
                    h.aio_zero(count * 512, first * 512, completion=done)
                else:
                    say("W %d %d %d" % (number, first, count))
                    data = b"".join(b"%09d %09d\n...........\n" % (s, number) * 16 for s in mine)
                    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), first * 512, completion=done)
            for fd, h in by_fd.items():
                d = h.aio_get_direction()
                poll.modify(fd, (select.POLLIN if d & nbd.AIO_DIRECTION_READ else 0) | (select.POLLOUT if d & nbd.AIO_DIRECTION_WRITE else 0))
            for fd, events in poll.poll():
                h = by_fd[fd]
                d = h.aio_get_direction()
                if d & nbd.AIO_DIRECTION_READ and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    h.aio_notify_read()
                elif d & nbd.AIO_DIRECTION_WRITE and events & select.POLLOUT:
                    h.aio_notify_write()
                else:
                    raise EOFError
                if h.aio_is_dead() or h.aio_is_closed():
                    raise EOFError
    except (nbd.Error, EOFError):
        pass  # the server is gone, as it was to be
    say("gone")
    os._exit(0)  # what is under way will not end


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    storm(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
