module deployguard.dev/tests/pause

go 1.21
