"""The codecs' syntax: tables, symbols, and the grammars that say which symbol may follow."""
