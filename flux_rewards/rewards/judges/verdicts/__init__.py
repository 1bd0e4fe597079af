"""What a judge's reply says. What cannot be read is a `JudgeError`: nothing is guessed, nothing has a default."""
