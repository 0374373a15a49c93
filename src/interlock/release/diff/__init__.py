"""How two releases differ, in the words of what people wrote, and whether more may happen under the new one."""
