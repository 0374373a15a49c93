"""The gate: the one function through which every tool call goes, whoever asks and by whatever protocol."""
