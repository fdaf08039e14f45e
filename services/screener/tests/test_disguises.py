"""One keyword rule and every disguise of its phrase that a reader sees through: a class of disguise each, with its variants (RELIABILITY: what the
client shows is what is screened), and innocent texts that must not be caught."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Callable
from email.header import Header

import pytest

from fixtures.packed import compressed, uuencoded, winmail, yencoded
from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, Rule
from postern_core.verdict import Action, Decision
from postern_screener.screening import Screened

Screens = Callable[..., Screened]
HEAD = b"From: a@sender.example\r\nMIME-Version: 1.0\r\n"
WORD = Rule(id="w", name="word", condition=KeywordCondition(phrases=("lottery",)), action=Action.DELETE)
PHRASE = Rule(id="p", name="phrase", condition=KeywordCondition(phrases=("you won the lottery",)), action=Action.DELETE)


def text(body: bytes | str, fields: str = "Content-Type: text/plain; charset=utf-8") -> bytes:
    return HEAD + fields.encode() + b"\r\n\r\n" + (body.encode() if isinstance(body, str) else body) + b"\r\n"


def html(body: str) -> bytes:
    return text(f"<html><body>{body}</body></html>", "Content-Type: text/html; charset=utf-8")


def header(line: str) -> bytes:
    return HEAD + line.encode() + b"\r\n\r\nhello\r\n"


def parts(*parts: bytes, kind: str = "mixed", before: bytes = b"", after: bytes = b"", mark: bytes = b"=_m") -> bytes:
    lines = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts)
    fields = b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind.encode(), mark)
    return HEAD + fields + before + lines + b"--" + mark + b"--\r\n" + after


def encoded(body: bytes, encoding: str, charset: str = "utf-8") -> bytes:
    raw = base64.encodebytes(body) if encoding == "base64" else quopri.encodestring(body)
    return text(raw, f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}")


def plain(body: str) -> bytes:
    return b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + body.encode()


def tnef(content: bytes, media_type: str = "application/ms-tnef") -> bytes:
    fields = f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return parts(plain("hello"), fields.encode() + base64.encodebytes(content))


def attached(name: str, content: bytes) -> bytes:
    fields = f'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    return parts(
        plain("hello"),
        fields.encode() + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content),
        mark=b"a%d" % len(content),
    )


DISGUISES: dict[str, list[bytes]] = {
    "transfer encodings": [
        text(b"you won the lot=\r\ntery", "Content-Transfer-Encoding: quoted-printable"),
        text(b"you won the l=6Ft=\r\n=\r\ntery", "Content-Transfer-Encoding: quoted-printable"),
        text(b"you won the lot= \r\ntery", "Content-Transfer-Encoding: Quoted-Printable"),
        encoded(b"you won the lottery", "base64"),
        text(b"eW91IHdvbi!B0aGUg\r\n\r\nbG90\r\ndGVyeQ", "Content-Transfer-Encoding: base64"),
        text(b"eW91IHdvbiA=dGhlIGxvdHRlcnk=", "Content-Transfer-Encoding: base64"),
        text(b"eW91IHdvbiA=dGhlIGxvdHRlcnk=", "Content-Transfer-Encoding: (a (b) c) base64"),
    ],
    "charsets": [
        text(
            "you won the lottery".encode("utf-16"),
            "Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: binary",
        ),
        encoded("you won the lottery".encode("utf-16-le"), "base64", "us-ascii"),
        encoded("you won the lottery".encode("utf-16-be"), "base64", "utf-8"),
        encoded("you won the lottery".encode("utf-32"), "base64", "utf-32"),
        encoded("you won the lottery".encode("cp500"), "base64", "cp500"),
        encoded("you won the lottery \xe9".encode("latin-1"), "base64", "utf-8"),
        encoded("you won the lottery é".encode(), "base64", "no-such-charset"),
        encoded("you won the ｌｏｔｔｅｒｙ".encode("shift_jis"), "base64", "shift_jis"),
        text("you won the +AGwAbwB0AHQAZQByAHk-", "Content-Type: text/plain; charset=utf-7"),
        text("you +AHc-on the lottery", "Content-Type: text/plain; charset=unicode-1-1-utf-7"),
        text("you won the +AGw-ottery", "Content-Type: text/plain; charset=(c)utf-7"),
        text("you won the +AGw-ottery", "Content-Type: text/plain; (c) charset=utf-7"),
        text("you won the +AGw-ottery", "Content-Type: text/plain charset=utf-7"),
        text(b"you won the lot\xfftery"),
        *(
            encoded(f"you won the {word}".encode(codec), "base64", label)
            for label, codec, word in (
                ("x-sjis", "cp932", "ｌｏｔｔｅｒｙ"),
                ("windows-949", "cp949", "ｌｏｔｔｅｒｙ"),
                ("x-gbk", "gbk", "ｌｏｔｔｅｒｙ"),
                ("csbig5", "big5", "ｌｏｔｔｅｒｙ"),
                ("eucjp-ms", "euc_jp", "ｌｏｔｔｅｒｙ"),
                ("x-cp1251", "cp1251", "lоttеrу"),
                ("koi8-ru", "koi8-u", "lоttеrу"),
                ("x-mac-cyrillic", "mac-cyrillic", "lоttеrу"),
                ("dos-866", "cp866", "lоttеrу"),
                ("IBM01047", "cp500", "lottery"),
            )
        ),
    ],
    "charsets that have to be guessed": [
        *(
            encoded("you won the ｌｏｔｔｅｒｙ".encode(codec), "base64", label)
            for codec in ("cp932", "euc_jp", "gb18030", "big5", "cp949")
            for label in ("us-ascii", "utf-8", "x-unheard-of")
        ),
        *(encoded("you won the lоttеrу".encode(codec), "base64", "") for codec in ("cp1251", "koi8-r", "iso8859-5", "cp866")),
        encoded("you won the ｌｏｔｔｅｒｙ".encode("iso2022_kr"), "base64", "us-ascii"),
        text("you won the lot\u200btery".encode() + b" \xff", "Content-Type: text/plain"),
        text(
            "<meta charset=shift_jis>you won the ｌｏｔ<b>ｔｅｒｙ".encode("cp932"),
            "Content-Type: text/html; charset=iso-8859-1",
        ),
    ],
    "header fields": [
        header("Subject: you won the =?utf-8?q?l=6fttery?="),
        header("Subject: you won =?utf-8?b?dGhlIGxvdA==?=\r\n =?utf-8?b?dGVyeQ==?="),
        header("Subject: you won the lot=?utf-8?q?tery?="),
        header("Subject: =?utf-8?b?eW91IHdvbiB0aGUgbG90?==?utf-8?b?dGVyeQ?="),
        header("Subject: =?utf-7?q?you_won_the_+AGw-ottery?="),
        header("Subject: you won\r\n the\r\n\tlottery"),
        header("Subject: " + Header("you won the lоttеrу", "utf-8").encode()),
        header("Subject: =?utf-8?q?you_won_the_lot=E2=80=8Btery?="),
        header("Subject: you won the =?utf-8?q?=EF=BD?=\r\n =?utf-8?q?=8Cottery?="),
        header("Subject: =?utf-8?b?eW91IHdvbiB0aGUg770=?= =?utf-8?q?=8Cottery?="),
        header("Subject: you won the =?iso-2022-jp?b?GyRCI2wjbyN0?=\r\n =?iso-2022-jp?b?I3QjZSNyI3kbKEI=?="),
        header("Subject: you won the =??q?l=6fttery?="),
        HEAD + b"Subject: you won the " + "ｌｏｔｔｅｒｙ".encode("iso2022_jp") + b"\r\n\r\nhello\r\n",
        HEAD + b"Subject: you won the " + "ｌｏｔｔｅｒｙ".encode("cp932") + b"\r\n\r\nhello\r\n",
        HEAD + b"Subject: you won the " + "lоttеrу".encode("cp1251") + b"\r\n\r\nhello\r\n",
    ],
    "entities": [
        html("you won the l&#111;ttery"),
        html("you won the l&#x6f;tt&#101ry"),
        html("you&nbsp;won the lot&shy;tery"),
        html("you won the lot&ZeroWidthSpace;tery"),
    ],
    "tags and comments in words": [
        html("you won the lot<b>te</b>ry"),
        html("you won the lot<!-- x > y -->tery"),
        html("you <a title='<>'>won</a> the lot<wbr>tery"),
        html("you won<br>the<p>lottery"),
        html("you won the lot<style>p{}</style><script>x</script>tery"),
        text("<html>you won the lot<b>tery</b>", "Content-Type: text/x-unheard-of"),
    ],
    "hidden text": [
        html('you won the lot<span style="display:none">xyz</span>tery'),
        html("you won the lot<span style='color:red; DISPLAY : NONE !important'>x<b>y</b>z</span>tery"),
        html("you won the lot<i style=visibility:hidden>xyz</i>tery"),
        html('you won the lot<span style="font-size:0">xyz</span>tery'),
        html('you won the lot<span style="font-size:0.0px">xyz</span>tery'),
        html('you won the lot<span style="opacity:0">xyz</span>tery'),
        html('you won the lot<span style="position:absolute;left:-9999px">xyz</span>tery'),
        html("you won the lot<span hidden>xyz</span>tery"),
        html('you won the lot<span title="a>b" style="display:none">xyz</span>tery'),
        html('you won the lot<font color="#ffffff">xyz</font>tery'),
        html('you won the lot<span style="color:white">xyz</span>tery'),
        html('you won the lot<span style="background-color:#123456;color:#123456">xyz</span>tery'),
        html("<style>.q, .h{display:none}</style>you won the lot<i class='a h'>xyz</i>tery"),
        html("<style>@media all{#h{font-size:0}}</style>you won the lot<i id=h>xyz</i>tery"),
        html("<style>u{display:none}</style>you won the lot<u>xyz</u>tery"),
        html("you won the lot<span style='display:none'>x<span>y</span>z</span>te<span style='display:none'>z</span>ry"),
        html("<div style='display:none;display:block'>you won the lot<i style='display:none'>xyz</i>tery</div>"),
        html("<p style='display:none'>x<p>you won the lot<i style='display:none'>xyz</i>tery"),
        *(
            html(f"you won the lot<i style='{style}'>xyz</i>tery")
            for style in (
                r"d\69splay:none",
                "display&#58;none",
                "&#100;isplay:none",
                "display:inline-block;width:0;overflow:hidden",
                "position:absolute;clip:rect(0,0,0,0)",
                "display:inline-block;transform:scale(0)",
                "position:absolute;transform:translateX(-9999px)",
                "position:absolute;left:-99em",
                "position:absolute;left:calc(-9999px)",
                "font:0/0 a",
                "font:bold 1px/1px a",
                "font-size:2px",
                "opacity:.01",
                "filter:opacity(0)",
                "content-visibility:hidden",
                "color:rgba(0,0,0,0)",
                "color:#00000000",
                "color:#fefefe",
                "color:hsl(0,0%,100%)",
                "color:rgb(100%,100%,100%)",
            )
        ),
        html("<style>.a:first-child{display:none}</style>you won the lot<i class=&#97;>xyz</i>tery"),
        html("<style>/*{*/.A/*}*/{display:none}</style>you won the lot<i class=a>xyz</i>tery"),
        *(html(f"you won the lot<{name}>xyz</{name}>tery") for name in ("template", "iframe", "dialog", "datalist", "rp")),
        html("<div style='display:none'>you won the lottery</div>"),
        html("<span style='font-size:0'>you won the lottery"),
    ],
    "invisible characters": [
        text(f"you won the lot{mark}tery")
        for mark in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\u180f\u115f\u3164\uffa0\u2064\ufe0f\U000e0041\U000e0101\ufff9\x00\x08\x7f"
    ],
    "directions": [
        text("you won the l\u202do\u202ct\u2066t\u2069e\u200er\u200fy\u061c"),
        text("\u202eyrettol eht now uoy\u202c"),
        text("you won the \u202eyrettol\u202c"),
        html("you won the &#8238;yrettol&#8236;"),
    ],
    "letters of other scripts": [
        text(f"you won the {word}")
        for word in (
            "lоttеrу",
            "ӏоttеrу",
            "LОТТЕRУ",
            "lотtеry",
            "ⅼоttery",
            "lοττεrγ".replace("γ", "y"),
            "LΟΤΤΕRΥ",
            "ⳑⲟttery".replace("ⳑ", "l"),
            "lօttery",
            "ꓡꓳꓔꓔꓰꓣꓬ",
            "ᏞOᎢᎢᎬᎡY",
            "ʟᴏᴛᴛᴇʀʏ",
            "🅻🅾🆃🆃🅴🆁🆈",
            "🅛🅞🅣🅣🅔🅡🅨",
            "🇱🇴🇹🇹🇪🇷🇾",
            "ⅼᴏтτеrу",
        )
    ]
    + [
        text("уоu wоn тhе lоttеrу"),
        text("Привет, это настоящий русский текст: you won the lоttеrу"),
        text("Привет, это настоящий русский текст. уоu wоn thе lоttеrу"),
        text("you won the l\u0338o\u0338t\u0338t\u0338e\u0338r\u0338y\u0338"),
        text("you won the l\u20dd\u0336o\u0336ttery"),
        html("you won the l&#1086;tt&#1077;ry"),
    ],
    "width and case": [
        text("ＹＯＵ ＷＯＮ ＴＨＥ ＬＯＴＴＥＲＹ"),
        text("you won the 𝐥𝐨𝐭𝐭𝐞𝐫𝐲"),
        text("you won the 𝓵𝓸𝓽𝓽𝓮𝓻𝔂"),
        text("you won the ⓛⓞⓣⓣⓔⓡⓨ"),
        text("you won the 🄻🄾🅃🅃🄴🅁🅈"),
        text("YoU\u3000WoN\u2003tHe\u2028LoTtErY"),
        text("you won the ˡᵒᵗᵗᵉʳʸ"),
        text("you won the loTTery"),
    ],
    "alternatives that differ": [
        parts(plain("harmless"), b"Content-Type: text/html\r\n\r\n<p>you won the lot<b>tery</b>", kind="alternative"),
        parts(plain("you won the lottery"), b"Content-Type: text/html\r\n\r\n<p>harmless", kind="alternative"),
        parts(plain("harmless"), b"Content-Type: text/enriched\r\n\r\nyou won the <bold>lot</bold>tery", kind="alternative"),
        parts(plain("harmless"), plain("you won the lottery"), kind="alternative"),
    ],
    "files inside a text": [
        text(b"hello\r\n" + uuencoded(b"you won the lottery\n" * 9, "a.txt") + b"bye"),
        text(uuencoded(b"you won the lottery\n", "a.txt").replace(b" ", b"`").replace(b"begin`644`", b"begin 644 ")),
        text(uuencoded(b"<p>you won the lot<b>tery</b>", "a.html")),
        text(b"begin-base64 644 a.txt\r\n" + base64.encodebytes(b"you won the lottery").replace(b"\n", b"\r\n") + b"====\r\n"),
        text(b"hello\r\n" + yencoded(b"you won the lottery\r\n" * 9, "a.txt")),
        text(uuencoded(HEAD + b"\r\nyou won the lottery", "a.eml")),
        text(uuencoded(winmail(body=b"you won the lottery\0"), "winmail.dat")),
    ],
    "lines that a format folds": [
        text("you won the lot \r\ntery", 'Content-Type: text/plain; format=flowed; delsp="yes"'),
        text("BEGIN:VCALENDAR\r\nSUMMARY:you won the lot\r\n tery\r\nEND:VCALENDAR", "Content-Type: text/calendar"),
        text("BEGIN:VCARD\r\nNOTE:you won the lоt\r\n\ttery\r\nEND:VCARD", "Content-Type: text/x-vcard; charset=utf-8"),
    ],
    "winmail.dat": [
        tnef(winmail(body=b"you won the lottery\0")),
        tnef(winmail(body="you won the lottery é\0".encode("cp850"), codepage=850)),
        tnef(winmail(subject=b"you won the lottery\0")),
        tnef(winmail(files={"a.txt": b"you won the lottery"})),
        tnef(winmail(files={"a.dat": winmail(body=b"you won the lottery\0")})),
        tnef(winmail(files={"a.eml": text("you won the lottery")})),
        tnef(winmail(properties={(0x1000, 0x1F): "you won the lottery\0".encode("utf-16-le")})),
        tnef(winmail(properties={(0x1013, 0x102): b"<p>you won the lot<b>tery</b>"})),
        tnef(winmail(properties={(0x1009, 0x102): compressed(b"{\\rtf1 you won\\par the {\\b lot}\\'74ery}")})),
        tnef(
            winmail(
                properties={
                    (0x1009, 0x102): compressed(
                        b"{\\rtf1\\fromhtml1 {\\*\\htmltag64 <p>}you won the lot{\\*\\htmltag84 <b>}tery}"
                    )
                }
            )
        ),
        tnef(winmail(body=b"you won the lottery\0"), "application/vnd.ms-tnef"),
        tnef(winmail(body=b"you won the lottery\0"), 'application/octet-stream; name="Winmail.dat"'),
    ],
    "messages as files": [
        attached("a.eml", text("you won the lottery")),
        attached("a.eml", header("Subject: you won the =?utf-8?q?l=6fttery?=")),
        attached("=?utf-8?q?a=2Eeml?=", encoded(b"you won the lottery", "base64")),
        attached("a.mht", parts(b"Content-Type: text/html\r\n\r\nyou won the lot<b>tery</b>")),
        attached("a.eml", attached("b.eml", text("you won the lottery"))),
    ],
    "outside of parts": [
        parts(plain("hello"), before=b"you won the lottery\r\n"),
        parts(plain("hello"), after=b"you won\r\nthe lottery\r\n"),
        parts(
            plain("hello"), parts(plain("a"), before=b"you won\r\n\r\nthe lottery\r\n", mark=b"i").removeprefix(HEAD), plain("b")
        ),
        parts(plain("hello"), parts(plain("a"), after=b"you won the lottery", mark=b"i").removeprefix(HEAD), plain("b")),
        parts(b"Content-Type: message/rfc822\r\n\r\n" + parts(plain("a"), after=b"you won the lottery", mark=b"i")),
        attached("a.eml", parts(plain("hello"), before=b"you won the lottery\r\n")),
    ],
    "text split over parts": [
        parts(plain("you won the lot"), plain("tery")),
        parts(plain("you won the lot\r\n"), plain("\r\ntery")),
        parts(plain("you won the l"), plain("ot"), plain("te"), plain("ry")),
        parts(plain("you won the"), plain("lottery")),
        parts(plain("you won the lot"), b"Content-Type: text/html\r\n\r\n<html><p>t<b>ery"),
        parts(b"Content-Type: text/html\r\n\r\n<p>you won the lot</p></html>", plain("tery")),
        parts(plain("you won the lоt"), plain("tеry")),
        parts(
            parts(
                plain("you won the lot"), b"Content-Type: text/html\r\n\r\n<p>you won the lot", kind="alternative", mark=b"i"
            ).removeprefix(HEAD),
            plain("tery"),
        ),
        parts(plain("you won the lot"), b"Content-Type: text/plain; name=a.txt\r\nContent-Disposition: inline\r\n\r\ntery"),
    ],
    "messages in messages": [
        parts(
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(encoded(b"you won the lottery", "base64").replace(b"\r\n", b"\n").replace(b"\n", b"\r"))
        ),
        parts(b"Content-Type: message/rfc822\r\n\r\n" + header("Subject: you won the =?utf-8?q?l=6fttery?=")),
        parts(
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(encoded(b"you won the lottery", "base64"))
        ),
        parts(b"Content-Type: message/global\r\n\r\n" + text("you won the lottery")),
        parts(parts(b"\r\n" + text("you won the lottery"), kind="digest", mark=b"=_d").removeprefix(HEAD)),
    ],
}


@pytest.mark.parametrize(("kind", "raw"), [(kind, raw) for kind, variants in DISGUISES.items() for raw in variants])
def test_a_phrase_is_found_in_every_disguise(screens: Screens, kind: str, raw: bytes) -> None:
    verdict = screens(raw, PHRASE).verdict
    assert verdict.decision is Decision.DELETE, kind
    assert screens(raw, WORD).verdict.decision is Decision.DELETE


EXE = Rule(
    id="e", name="exe", condition=AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)), action=Action.DELETE
)
NAMES = [
    'attachment; filename="a.exe"',
    'attachment; filename="a.pdf"; filename="a.exe"',
    "attachment; filename=a.pdf; filename*=utf-8''a%2Eexe",
    "attachment; filename*=us-ascii'en'a.e%78e; filename=a.pdf",
    'attachment; filename*0="a.e"; filename*1="xe"',
    'attachment; filename*1="xe"; filename*0="a.e"',
    "attachment; filename*0*=utf-8''a%2E; filename*1=exe",
    'attachment; filename="=?utf-8?b?YS5leGU=?="',
    "attachment; filename==?utf-8?q?a=2Eexe?=",
    'attachment; filename="a.exe. ."',
    'attachment; filename="a.pdf      .exe"',
    'attachment; filename="a.exe.txt"',
    'attachment; filename="a\u202etxt.exe"',
    'attachment; filename="a．ｅｘｅ"',
    'attachment; filename="a.exe::$DATA"',
    "attachment\r\nContent-Type: application/octet-stream; name=a.exe",
    "attachment; filename=a.pdf\r\nContent-Type: application/octet-stream; name*=utf-8''a%2Eexe",
    "attachment; filename=a.pdf\r\nContent-Type: application/octet-stream; name*1=xe; name*0=a.e",
]


@pytest.mark.parametrize("field", NAMES)
def test_an_extension_is_found_in_every_form_of_a_file_name(screens: Screens, field: str) -> None:
    part = f"Content-Disposition: {field}\r\n".encode() + b"\r\nx"
    assert screens(parts(plain("hello"), part), EXE).verdict.decision is Decision.DELETE


def test_the_name_of_a_program_in_another_name_is_none(screens: Screens) -> None:
    part = b'Content-Disposition: attachment; filename="exe about.pdf"\r\n\r\nx'
    assert screens(parts(plain("hello"), part), EXE).verdict.decision is Decision.PASS


@pytest.mark.parametrize(
    ("raw", "part", "offset", "excerpt"),
    [
        (parts(plain("é you won the lot\r\n"), plain("\r\ntery")), "1", len("é you won the ".encode()), "lottery"),
        (parts(plain("l"), plain("ot"), plain("tery")), "2", 0, "lottery"),
        (text("x +AOk- the +AGw-ottery", "Content-Type: text/plain; charset=utf-7"), "1", 13, "lottery"),
        (encoded("日本 ｌottery".encode("iso2022_jp"), "base64", "iso-2022-jp"), "1", 14, "ｌottery"),
        (text("é lot \r\ntery", "Content-Type: text/plain; charset=utf-8; delsp=yes; format=flowed"), "1", 3, "lottery"),
        (text(b"\xff\xfe\xff \xe9 lottery"), "1", 6, "lottery"),
        (text("é \u202eyrettol\u202c"), "1", len("é \u202e".encode()), "lottery"),
        (text("é you won the lоttеrу"), "1", len("é you won the ".encode()), "lоttеrу"),
        (html("é lot<i hidden>xyz</i>tery"), "1", len("<html><body>é ".encode()), "lottery"),
        (text(b"\r\n" + uuencoded(b"the lottery", "a.txt")), "1.uu1", 4, "lottery"),
        (tnef(winmail(body=b"the lottery\0")), "2.tnef.body", 4, "lottery"),
        (
            attached("a.eml", header("Subject: the lottery")),
            "2.header",
            len(b"From: a@sender.example\nMIME-Version: 1.0\nSubject: the "),
            "lottery",
        ),
        (parts(plain("hello"), after=b"the lottery"), "epilogue", 4, "lottery"),
        (
            parts(plain("hello"), parts(plain("a"), before=b"the lottery\r\n", mark=b"i").removeprefix(HEAD)),
            "2.preamble",
            4,
            "lottery",
        ),
    ],
)
def test_the_place_of_a_disguised_phrase_is_told(screens: Screens, raw: bytes, part: str, offset: int, excerpt: str) -> None:
    finding = screens(raw, WORD).verdict.findings[0]
    assert (finding.part, finding.offset, finding.excerpt) == (part, offset, excerpt)


INNOCENT = [
    text("a lot terry cloth"),
    text("Сорок сороков. Лотерея, а не lot: настоящий русский текст о погоде."),
    text("Η λοταρία και ένα ελληνικό κείμενο"),
    html('lot<span style="display:none">xyz</span> tery'),
    html("<p>lot</p><p>tery</p>"),
    html("lot<br>tery"),
    text("lo\nttery"),
    text("löttery"),
    text("Subject: lot\r\n\r\ntery"),
    parts(plain("lot"), plain("tery"), kind="alternative"),
    parts(plain("lot"), b"Content-Type: image/png\r\n\r\nx", plain("tery")),
    parts(plain("lot"), b"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\ntery"),
    text("how to uuencode:\r\n\r\nbegin 644 lottery.txt\r\n\r\nthen the lines").replace(b"lottery", b"file"),
]


@pytest.mark.parametrize("raw", INNOCENT)
def test_innocent_texts_are_not_caught(screens: Screens, raw: bytes) -> None:
    assert screens(raw, WORD).verdict.decision is Decision.PASS
