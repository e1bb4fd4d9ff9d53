"""What a federation of real sites needs whatever carries its messages: keys, certificates, the enrolment file."""
