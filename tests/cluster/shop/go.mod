module deployguard.dev/tests/shop

go 1.21
