"""The screener: inspects each accepted message and passes (changed, where rules ask for it), deletes, holds or forwards it.

    worker.py      pulls a message, has it inspected, carries the verdict out, lets go
    mime.py        bytes → part tree      defects.py: where other readers may see another
    text.py        and charsets.py, encoded_words.py, html_text.py, filenames.py: what a reader would see of it
    contents/      what attachments are and what lies in them
    checks/        one file a rule family: message → hits      ruleset.py: policy → compiled checks
    deciding.py    hits and answers → which rule decides, and who has to be asked      screening.py   → verdict
    engines/       clamd, rspamd and YARA: clients, answers, health      waiting.py: mail that waits for one
    changing.py    rules that matched → edits of the message: changes/ has one file a step
    companions.py  copies and notices beside it      notice.py: what a notice says
    actions.py     verdict → publish      sandbox.py: the same inspection in a child that may die
    postern_core.workers  several worker processes

It trusts no message: whatever does not parse is held, and a message that hangs or crashes its inspection is convicted in a child process
and held as poison, while the others go on. It has no database, and no access to users, secrets or delivery's policy.
Standards: RFC 5322 (message format), RFC 2045-2047 and 2231 (MIME), RFC 3501 section 6.4.5 (part numbers).
"""
