-- Block a subject. KEYS[1] its block. ARGV[1] how long, microseconds.
call('SET', KEYS[1], string.format('%.0f:%s', clock + ARGV[1], ARGV[1]), 'PX', math.ceil(ARGV[1] / 1000) + 1)
return 1
