"""What attachments really are and what lies in them. Nothing is opened unless a rule or the policy asks.

    real_type.py     content → what it is, by signatures of our own     compound.py: OLE2 files     embedded.py: RAR and 7z in something else
    archives.py      an attachment → what lies in it, at any depth, within limits: `walk`
    zip_archive.py   tar_archive.py  compressed.py: read here, in plain Python over zlib, bz2 and lzma
    opener.py        7z, rar and other kinds: libarchive, in a child (`opener_child.py`) that may die
    message.py       a message in an archive: its parts
    office.py        encrypted documents and macros
    deceptive.py     names that are made to look like others
    budget.py        the limits     entry.py: what openers yield; obstacles: what was not opened, and why

Whatever is not read is an `Obstacle`: it never counts as clean. See docs/adr/0013.
"""
