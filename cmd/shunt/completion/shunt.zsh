#compdef shunt
# zsh completion for shunt: source <(shunt completion zsh), or put it as _shunt
# in a folder of fpath.

_shunt() {
	local line
	local -a candidates shown
	for line in "${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
		case $line in
		'') ;;
		:files)
			_files
			return
			;;
		*$'\t'*)
			candidates+=("${line%%$'\t'*}")
			shown+=("${line%%$'\t'*}  (${line#*$'\t'})")
			;;
		*)
			candidates+=("$line")
			shown+=("$line")
			;;
		esac
	done
	(($#candidates)) && compadd -l -d shown -a candidates
}

if [[ $funcstack[1] == _shunt ]]; then
	_shunt "$@"
else
	compdef _shunt shunt
fi
