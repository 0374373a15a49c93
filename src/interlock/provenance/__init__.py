"""Where did this value come from? Pure: texts and fields in, tokens and origins out."""
