"""The runs of a report, gathered into arms, and what each scored, learned and changed."""
