package config

// Keys returns the keys of every mapping of the text, in the order of a
// formatted file, by the mapping's path without indices; and which paths the
// text has.
func Keys(data []byte) (keys map[string][]string, has map[string]bool, err error) {
	l := &loader{}
	d := l.decode("keys", "", part, data)
	_, err = l.finish()
	has = make(map[string]bool)
	for path := range d.places {
		has[unindexed(path)] = true
	}
	return d.keys, has, err
}

// Comments returns the texts of a configuration's comments.
func Comments(data []byte) []string {
	l := &loader{}
	d := l.decode("comments", "", part, data)
	var texts []string
	for _, c := range comments(data, d.root) {
		texts = append(texts, c.text)
	}
	return texts
}

// SettingKeys returns the keys that Differences knows.
func SettingKeys() []string {
	var keys []string
	for _, s := range settings {
		keys = append(keys, "director."+s.key)
	}
	return keys
}

// Meaning is what the text says by itself, wherever it stands; its includes are not
// followed.
func Meaning(data []byte) Config {
	l := &loader{}
	d := l.decode("meaning", "", part, data)
	cfg, _ := l.finish()
	cfg.Warnings = nil // they are of places
	for _, include := range d.includes {
		cfg.Director.Interfaces = append(cfg.Director.Interfaces, "include "+include.pattern)
	}
	return cfg
}
