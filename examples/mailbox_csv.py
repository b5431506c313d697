#!/usr/bin/python3
"""Lists a maildir as CSV: message_id, recipient, and the name that the mail greets.

    examples/mailbox_csv.py /tmp/mail
"""
import csv
import email.policy
import email.parser
import mailbox
import re
import sys

parser = email.parser.BytesParser(policy=email.policy.default)
sys.stdout.reconfigure(encoding="utf-8")
lines = csv.writer(sys.stdout)
lines.writerow(["message_id", "recipient", "name"])
for message in mailbox.Maildir(sys.argv[1], factory=parser.parse, create=False):
    greeting = re.match(r"Hello (.*),\n", message.get_content().replace("\r\n", "\n"))
    lines.writerow([message["Message-ID"].strip("<> "),
                    message["To"].addresses[0].addr_spec,
                    greeting.group(1) if greeting else ""])
