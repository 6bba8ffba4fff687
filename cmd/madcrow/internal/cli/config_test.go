package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// A file that the Python service reads means the same here: only ${NAME} stands
// for another setting.
func TestLoadDotenv_DollarsAsInPython(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.env")
	text := "# costs $HOME\n" +
		"T_BARE=pa$W0RD$$x$\nT_DOUBLE=\"us$ER1x\"\nT_SINGLE='a$B\\n'\nT_LAST=$ALL_CAPS\n" +
		"T_OTHER=x\nT_BRACED=${T_OTHER}y\nT_SET=file\nexport T_EXPORT=a$B # why\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"T_BARE": "pa$W0RD$$x$", "T_DOUBLE": "us$ER1x", "T_SINGLE": `a$B\n`, "T_LAST": "$ALL_CAPS",
		"T_OTHER": "x", "T_BRACED": "xy", "T_SET": "real", "T_EXPORT": "a$B",
	}
	for name := range want {
		t.Setenv(name, "") // put back at the end
		_ = os.Unsetenv(name)
	}
	t.Setenv("T_SET", "real")
	if err := loadDotenv(file); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if got := os.Getenv(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}
