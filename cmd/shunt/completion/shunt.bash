# bash completion for shunt: source <(shunt completion bash)

_shunt() {
	local line=${COMP_LINE:0:COMP_POINT} words current candidates colons
	COMPREPLY=()
	# COMP_WORDS is split at : and =, which URLs and flags contain.
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	current=${words[-1]}
	mapfile -t candidates < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null | cut -f 1)
	if [[ ${candidates[0]-} == :files ]]; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
	fi
	# What stands before the last separator is on the command line already.
	for colons in : =; do
		if [[ $COMP_WORDBREAKS == *"$colons"* && $current == *"$colons"* ]]; then
			candidates=("${candidates[@]#"${current%"${current##*"$colons"}"}"}")
			current=${current##*"$colons"}
		fi
	done
	COMPREPLY=("${candidates[@]}")
}

complete -F _shunt shunt
