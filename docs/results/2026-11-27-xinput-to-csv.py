"""Keys that `xinput test-xi2 --root | ts '%.s'` printed, as a log that `dataset import` reads.

python docs/results/2026-11-27-xinput-to-csv.py input.txt START > play.csv, START being the seconds since 1970
at which the video began (`date +%s.%N` just before the recorder).
"""
import csv
import re
import sys

NAMES = {"111": "Up", "113": "Left", "114": "Right", "116": "Down"}  # key codes of an X server (xmodmap -pke)
STATES = {"RawKeyPress": "down", "RawKeyRelease": "up"}

table = csv.writer(sys.stdout)
table.writerow(("t", "key", "down"))
start, state = float(sys.argv[2]), None
for line in open(sys.argv[1]):
    stamp, _, text = line.partition(" ")
    if event := re.match(r"EVENT type \d+ \((\w+)\)", text):
        moment, state = float(stamp) - start, STATES.get(event[1])
    elif state and (code := re.match(r"\s*detail: (\d+)", text)) and code[1] in NAMES:
        table.writerow((f"{moment:.4f}", NAMES[code[1]], state))
        state = None
