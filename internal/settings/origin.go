package settings

// Origin remembers who wrote which field, so that a problem names the setting
// as its author knows it.
type Origin struct {
	env     bool              // read from the environment
	prefix  string            // of the names there
	names   map[string]string // names that differ from the table's: NAME_FILE
	written map[string]string // what each field showed then

	urlSetting string          // how the URL is called
	url        string          // the URL without secrets
	fromURL    map[string]bool // the fields that the URL speaks for

	secrets map[string]SecretFile // by field
}

// SecretFile is a secret that stands in a file.
type SecretFile struct {
	// Setting names the file.
	Setting string
	Path    string
	// Was is what the file held when the configuration was read.
	Was string
	// Read returns what the file holds now.
	Read func() (string, error)
}

// remember notes what v holds now, so that a change made later in code is not
// blamed on the environment.
func (o *Origin) remember(v *Values) {
	o.written = make(map[string]string, len(table))
	for field := range byField {
		o.written[field] = v.text(field)
	}
	o.written["Socket"] = v.text("Socket")
}

// describe returns the name of a field as its author knows it, and its value
// without secrets.
func (o *Origin) describe(v *Values, field string) (name, value string) {
	value = v.text(field)
	if o != nil && (o.written == nil || o.written[field] == value) {
		if o.fromURL[field] {
			return o.urlSetting, o.url
		}
		if s, ok := byField[field]; ok && o.env {
			if name := o.names[field]; name != "" {
				return name, value
			}
			return s.envName(o.prefix), value
		}
	}
	return "Config." + field, value
}

// WithoutSecrets returns a copy that can say what is wrong, and cannot read
// secrets again.
func (o *Origin) WithoutSecrets() *Origin {
	if o == nil {
		return nil
	}
	c := *o
	c.secrets = nil
	return &c
}

// SecretFiles are the secrets that stand in files, by the name of their field.
// One that was changed in code since it was read is not in a file any more.
func (v *Values) SecretFiles() map[string]SecretFile {
	files := map[string]SecretFile{}
	if v.Origin == nil || v.HasCredentials {
		return files
	}
	for field, s := range v.Origin.secrets {
		if *byField[field].str(v) == s.Was {
			files[field] = s
		}
	}
	_, ofCluster := v.Origin.secrets["Cluster.Password"]
	if s, ok := files["Password"]; ok && v.Cluster.Password == s.Was && !ofCluster {
		files["Cluster.Password"] = s // its default
	}
	return files
}
