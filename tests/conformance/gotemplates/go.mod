module homeport.dev/tests/gotemplates

go 1.21
