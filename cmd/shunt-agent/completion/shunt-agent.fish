# fish completion for shunt-agent: shunt-agent completion fish | source

function __shunt_agent
	set -l words (commandline --cut-at-cursor --tokenize) --generate-bash-completion
	set -l current (commandline --cut-at-cursor --current-token)
	if string match -q -- '-*' $current
		set words (commandline --cut-at-cursor --tokenize) $current --generate-bash-completion
	end
	SHELL=zsh command $words 2>/dev/null | string replace : \t
end

complete -c shunt-agent -f -a '(__shunt_agent)'
