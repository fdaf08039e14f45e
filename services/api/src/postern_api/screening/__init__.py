"""Rules tried before they bite: on a message that an administrator brings, and on mail that was screened before."""
