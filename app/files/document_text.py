"""Print the beginning of the text of the document on stdin: `python document_text.py MEDIA_TYPE CHARACTERS`.

It is a program of its own, because documents come from anybody, and some take all the memory or time there is.
"""

import resource
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

MEMORY_BYTES = 512 * 2**20
CPU_S = 20
_OFFICE = "application/vnd.openxmlformats-officedocument."


def pdf_text(document: BytesIO) -> Iterator[str]:
    """Yield the text of each page; raise `ValueError` for a PDF with a password."""
    from pypdf import PdfReader

    reader = PdfReader(document)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("it needs a password")
    for page in reader.pages:
        yield page.extract_text()


def word_text(document: BytesIO) -> Iterator[str]:
    """Yield the paragraphs and the rows of tables."""
    from docx import Document
    from docx.table import Table

    for block in Document(document).iter_inner_content():
        yield from _rows(block) if isinstance(block, Table) else (block.text,)


def sheet_text(document: BytesIO) -> Iterator[str]:
    """Yield the name of each sheet and its rows, with the results of formulas."""
    from openpyxl import load_workbook

    for sheet in load_workbook(document, read_only=True, data_only=True):
        yield f"# {sheet.title}"
        for row in sheet.iter_rows(values_only=True):
            yield "\t".join("" if cell is None else str(cell) for cell in row).rstrip()


def slides_text(document: BytesIO) -> Iterator[str]:
    """Yield the texts and tables of each slide, and the speaker's notes."""
    from pptx import Presentation

    for number, slide in enumerate(Presentation(document).slides, 1):
        yield f"# {number}"
        shapes: Any = slide.shapes
        for shape in shapes:
            if shape.has_text_frame:
                yield shape.text_frame.text
            elif shape.has_table:
                yield from _rows(shape.table)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame:
            yield slide.notes_slide.notes_text_frame.text


def _rows(table: Any) -> Iterator[str]:
    return ("\t".join(cell.text for cell in row.cells) for row in table.rows)


READERS: dict[str, Callable[[BytesIO], Iterator[str]]] = {
    "application/pdf": pdf_text,
    f"{_OFFICE}wordprocessingml.document": word_text,
    f"{_OFFICE}spreadsheetml.sheet": sheet_text,
    f"{_OFFICE}presentationml.presentation": slides_text,
}


def main(media_type: str, characters: str) -> int:
    """Print the text; the exit status is 1, with the reason on stderr, for a document that cannot be read."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    left = int(characters)
    try:
        for text in READERS[media_type](BytesIO(sys.stdin.buffer.read())):
            line = f"{text}\n"[:left]
            sys.stdout.buffer.write(line.encode(errors="replace"))
            left -= len(line)
            if not left:
                break
    except Exception as error:  # noqa: BLE001 - libraries raise anything for a damaged document
        print(f"{error}" if type(error) is ValueError else "it is damaged", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
